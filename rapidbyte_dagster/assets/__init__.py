"""Pipelines as Dagster assets: the only package here that imports Dagster."""
