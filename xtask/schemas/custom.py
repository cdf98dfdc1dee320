"""Validates objects of kinds that Kubernetes has no schemas of: custom.py SCHEMAS MANIFESTS"""
import json
import sys

import jsonschema
import yaml

schemas = json.load(open(sys.argv[1]))
faults = 0
for document in yaml.safe_load_all(open(sys.argv[2])):
    schema = schemas.get(f"{(document or {}).get('apiVersion')} {(document or {}).get('kind')}")
    if schema is None:
        continue
    for error in jsonschema.Draft7Validator(schema).iter_errors(document):
        faults += 1
        print(f"{document['kind']} {document['metadata']['name']}: {'/'.join(map(str, error.path))}: {error.message}")
sys.exit(1 if faults else 0)
