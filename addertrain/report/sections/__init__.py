"""The sections of a report, one file each; every section chooses its runs."""
