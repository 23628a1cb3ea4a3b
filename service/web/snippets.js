/** A request as commands that run as they are: for curl, and for Python without any package. */

export const KEY_VARIABLE = "BERTRAND_API_KEY";

/**
 * Return a shell command.
 *
 * The body comes from a here-document: nothing in it needs escaping, and it may be longer than an argument.
 *
 * @param {{url: string, body: object, keyed: boolean}} request `keyed`: the service asks for a key.
 */
export function curl({ url, body, keyed }) {
  const lines = [`curl -sS '${url}'`, "  -H 'content-type: application/json'"];
  if (keyed) lines.push(`  -H "authorization: Bearer $${KEY_VARIABLE}"`);
  lines.push("  --data-binary @- <<'JSON'");
  return `${lines.join(" \\\n")}\n${json(body)}\nJSON\n`;
}

/**
 * Return a Python program.
 *
 * @param {{url: string, body: object, keyed: boolean}} request
 */
export function python({ url, body, keyed }) {
  const key = keyed ? `, "authorization": f"Bearer {os.environ['${KEY_VARIABLE}']}"` : "";
  return `import json
${keyed ? "import os\n" : ""}import urllib.request

request = urllib.request.Request(
    ${JSON.stringify(url)},
    data=json.dumps(${literal(body)}).encode(),
    headers={"content-type": "application/json"${key}},
)
with urllib.request.urlopen(request, timeout=60) as response:
    answer = json.load(response)

for result in answer["results"]:
    print(json.dumps(result, ensure_ascii=False))
`;
}

/** @param {object} body */
function json(body) {
  const fields = Object.entries(body).map(([name, value]) => `  ${JSON.stringify(name)}: ${valueOf(value)}`);
  return `{\n${fields.join(",\n")}\n}`;
}

/** @param {any} value */
function valueOf(value) {
  if (!Array.isArray(value) || isShort(value)) return JSON.stringify(value);
  return `[\n${value.map((item) => `    ${JSON.stringify(item)}`).join(",\n")}\n  ]`;
}

/** Whether strings fit a line with what stands before them. @param {any[]} value */
function isShort(value) {
  return JSON.stringify(value).length < 30;
}

/** JSON as Python: the strings of one are strings of the other. @param {any} value @returns {string} */
function literal(value, indent = "    ") {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value) && isShort(value)) return JSON.stringify(value);
  if (Array.isArray(value))
    return block(
      "[",
      "]",
      value.map((item) => literal(item, `${indent}    `)),
      indent,
    );
  if (typeof value !== "object") return JSON.stringify(value);
  const fields = Object.entries(value).map(([name, of]) => `${JSON.stringify(name)}: ${literal(of, `${indent}    `)}`);
  return block("{", "}", fields, indent);
}

/** @param {string} open @param {string} close @param {string[]} items @param {string} indent */
function block(open, close, items, indent) {
  return items.length
    ? `${open}\n${items.map((item) => `${indent}    ${item},\n`).join("")}${indent}${close}`
    : open + close;
}
