# Lets a recipe of tinker-cookbook go on from this checkpoint, with optimizer state. Needs no package.
# A recipe goes on after the last line of checkpoints.jsonl in its log_path: this adds that line. Then start the recipe
# again with the same log_path, with base_url={base_url_word}, and choose to resume.
import json
from pathlib import Path

log_path = "~/tinker/my-run"  # the recipe's log_path
epoch, batch = 0, 0  # where in its data the recipe shall go on

line = {"name": {name}, "epoch": epoch, "batch": batch, "state_path": {path}}
log_dir = Path(log_path).expanduser()
log_dir.mkdir(parents=True, exist_ok=True)
with open(log_dir / "checkpoints.jsonl", "a") as file:
    file.write(json.dumps(line) + "\n")
