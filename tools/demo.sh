#!/usr/bin/env bash
# The demo: render videos, train a small gated network on them, export it, run a video that training never saw.
# usage: tools/demo.sh FOLDER
set -euo pipefail
folder=${1:?usage: tools/demo.sh FOLDER}
videos=$folder/videos
bundle=$folder/bundle
mkdir -p "$folder"

say() { printf '\n== %s\n' "$*"; }

say "1/4 rendering videos of moving shapes and training a small network with gates"
dance-train --data rendered --render-dir "$videos" --render-clips 30 --arch small --clip 16x48x60 \
  --epochs-dense 40 --epochs-ava 4 --epochs-aap 25 --target-macs 0.5 -o "$folder/small.pt" --resume

say "2/4 exporting it: every gated layer is verified on the way"
dance-export "$folder/small.pt" -o "$bundle"

say "3/4 proving the installation"
dance-run "$bundle" --self-test

# the easiest and the hardest test clip; columns of the manifest: path,label,split,difficulty
mapfile -t videos_by_difficulty < <(awk -F, '$3 == "test" {print $4, $1}' "$videos/manifest.csv" | sort -g | cut -d' ' -f2)
easy=$videos/${videos_by_difficulty[0]}
hard=$videos/${videos_by_difficulty[-1]}
say "4/4 running an easy and a hard video: gated, then the same network without gates"
dance-run "$bundle" "$easy" "$hard" --json "$folder/result.jsonl"
dance-run "$bundle" "$easy" "$hard" --dense
python -m dance_deploy.cli.kept_maps "$bundle" "$easy" "$hard" -o "$folder/kept.png"

say "what was kept is drawn in $folder/kept.png; the bundle is in $bundle; try: .venv/bin/dance-run $bundle VIDEO --budget 0.4"
