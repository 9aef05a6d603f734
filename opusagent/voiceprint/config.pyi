from voiceprint.config import *
