"""The models Fairlane ships, one definition file each; `export.catalog.catalog` lists and loads them."""
