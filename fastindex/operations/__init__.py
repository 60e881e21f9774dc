"""What a user asks for, one room each.

Rooms do not import each other; all may use ``plan``, and ``prune`` ends with a build.
"""
