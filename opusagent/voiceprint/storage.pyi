from voiceprint.storage import *
