"""Bad input and hostile input. Each module is a table: to add a case is to add a line."""
