"""The commands; each is thin: parse, call one function, print. Nothing imports this package."""
