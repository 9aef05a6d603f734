from voiceprint.utils import *
