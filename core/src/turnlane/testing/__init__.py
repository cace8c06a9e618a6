"""What plugin authors and our own tests share: virtual clock, seeded network, conformance kits."""
