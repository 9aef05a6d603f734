from voiceprint.recognizer import *
