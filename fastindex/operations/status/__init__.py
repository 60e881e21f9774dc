"""How a mirror is: what is published, how the last runs ended, and what a person should see to."""
