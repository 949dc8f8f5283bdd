"""Right and wrong answers to the exercises of lesson 03."""

RIGHT = {}  # exercise -> list of functions
WRONG = {}  # exercise -> list of (function, a part of the hint that it must get)
