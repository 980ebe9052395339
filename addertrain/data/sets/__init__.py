"""The data sets, by name: their sizes and statistics, their files, and the functions that open them."""
