"""Withdraw versions, and delete them once no client can know of them any more."""
