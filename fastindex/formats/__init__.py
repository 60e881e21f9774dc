"""Bytes and names that strangers wrote → values, or an error that says what is wrong.

Every parser that an uploader can reach lives here, and each is a fuzz target.
"""
