"""The data sets by name: what is known of each (`facts`), where it lies (`places`), and how it is opened."""
