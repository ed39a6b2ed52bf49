"""The reference integration at work: players that stand for the CRM and the card processor, and the final count."""
