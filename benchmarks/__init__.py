"""How fast the guard decides, beside a text-book Faust agent that does the same job and a plain echo that decides nothing."""
