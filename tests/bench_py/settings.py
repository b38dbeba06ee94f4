"""The worker's settings that belong to the fixture, as arguments of the form section.key=value."""

from land import CHANCE, SEED

print(f"run.seed={SEED}", "stac.season=spring", "output.name_template=p{parcel}_t{task}", "log.filter=warn", end=" ")
print(*(f"sampling.probabilities.{cls}={chance}" for cls, chance in CHANCE.items()))
