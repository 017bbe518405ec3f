"""Pictures and pages for people, drawn from the files that the other parts write."""
