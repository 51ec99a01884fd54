import sys

sys.modules["app"] = sys.modules[__name__]  # the page calls its first block app.py
