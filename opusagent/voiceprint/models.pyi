from voiceprint.models import *
