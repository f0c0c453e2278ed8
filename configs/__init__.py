"""YAML configurations, installed as package data (causalclip.configs)."""
