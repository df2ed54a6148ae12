#!/usr/bin/env bash
# The whole story on real digits: a register, timestamps, one training, a stolen copy, a notary, a certificate, a dossier.
# Everything stays on this machine; the timestamps are a lab's, so that every page says NOT ATTESTED.
#
#   pip install 'wmplug[demo,evidence]' && bash examples/dossier.sh [FOLDER]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-wmplug-dossier}
mkdir -p "$folder" && cd "$folder"
export WMPLUG_PASSPHRASE=${WMPLUG_PASSPHRASE:-demo} WMPLUG_REGISTER=register
say() { printf '\n== %s\n' "$*"; }

say "A timestamp authority for the lab"
wmplug tsa make --dir tsa --port 3161
wmplug tsa serve --dir tsa --port 3161 & tsa=$!
trap 'kill $tsa' EXIT
for _ in $(seq 100); do (: < /dev/tcp/127.0.0.1/3161) 2>/dev/null && break; sleep 0.1; done

say "Ada opens a register, has it stamped, and commits to a secret before any trigger exists"
wmplug init --name "Ada Lovelace"
wmplug register anchor --trust tsa/trust.json
python "$here/dossier_models.py" carriers .
wmplug create --scheme random-label --carriers carriers.npz --classes 10 --out mark.wm \
  --preprocess wmplug.cli.demo.models:example  # committed to now, so that nobody can fit it later
wmplug register receipt --out receipt.json

say "She trains with one callback; somebody steals the model and fine-tunes it; three others train their own"
python "$here/dossier_models.py" train .
wmplug register anchor

say "She tests the suspect"
wmplug verify mark.wm suspect --preprocess wmplug.cli.demo.models:example
wmplug verify mark.wm suspect --preprocess wmplug.cli.demo.models:example --exhaustive --json > suspect.json
wmplug verify mark.wm control1 --preprocess wmplug.cli.demo.models:example --exhaustive --json > control.json || [ $? = 1 ]

say "A notary takes over: she seals the secret of this one watermark to him"
wmplug notary key --keys nora --name "Nora Notary"
wmplug notary prepare mark.wm --to nora/notary.pub --case case-1 --carriers carriers.npz --out claim.age
root=$(python - <<'PY'
import json
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
trust = json.load(open("tsa/trust.json"))
print(x509.load_pem_x509_certificate(trust["roots"][0].encode()).fingerprint(SHA256()).hex())
PY
)
wmplug notary challenge case-1 --open --package claim.age --keys nora --authority "$root" \
  --suspect suspect --suspect-how "downloaded from the opponent's page" --own own --own-how "handed over by the owner" \
  --control control1 --control-how "trained by the notary" --control control2 --control-how "trained by the notary" \
  --control control3 --control-how "trained by the notary"
for party in notary opponent; do
  wmplug notary challenge case-1 --nonce "$party=$party.nonce" --json > "$party.json"
done
commitment() { python -c 'import json, sys; print(json.load(open(sys.argv[1]))["commitment"])' "$1"; }
wmplug notary challenge case-1 --commit "notary=$(commitment notary.json)" --commit "opponent=$(commitment opponent.json)"
wmplug notary challenge case-1 --reveal notary=notary.nonce --reveal opponent=opponent.nonce
wmplug notary check case-1 --package claim.age --keys nora --preprocess wmplug.cli.demo.models:example --receipt receipt.json \
  || [ $? = 1 ]  # NOT ATTESTED is no proof: the clock was the lab's own
wmplug notary certify case-1 --keys nora
wmplug notary spend case-1/certificate.json

say "The dossier"
wmplug register anchor
wmplug register check
wmplug report --out dossier.html --json-out dossier.json --bom bom.json --verdict suspect.json --control control.json \
  --certificate case-1/certificate.json --receipt receipt.json
ls -l dossier.html case-1/certificate.html
