"""The verb compare: several runs, their accuracy, reasons and maps; of two runs, what the second changed."""
