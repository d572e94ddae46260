"""``ringfence audit``: reads a guard's topics afterwards and proves its promises, by the rules alone."""
