"""The verb compare: several runs, their accuracy, reasons and maps."""
