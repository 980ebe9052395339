"""The sections of a report, a file each: what is shown, and from which runs."""
