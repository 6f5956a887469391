// What the page asks its server for. Maps travel as deflated bytes, one a pixel: a canvas may change what is read back
// from it (colour management, protection against fingerprints), an array doesn't.

export class Stale extends Error {
  constructor(latest) {
    super("saved elsewhere since");
    this.latest = latest;
  }
}

async function through(bytes, stream) {
  const piped = new Blob([bytes]).stream().pipeThrough(stream);
  return new Uint8Array(await new Response(piped).arrayBuffer());
}

function base64(bytes) {
  const pieces = [];
  for (let start = 0; start < bytes.length; start += 0x8000) {
    pieces.push(String.fromCharCode(...bytes.subarray(start, start + 0x8000)));
  }
  return btoa(pieces.join(""));
}

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("the server can't be reached");
  }
  if (response.ok) return response;
  const text = await response.text();
  let answer = { error: text };
  try {
    answer = JSON.parse(text);
  } catch {
    // plain text
  }
  if (response.status === 409 && answer.latest) throw new Stale(answer.latest);
  const error = new Error(answer.error || `the server answers ${response.status}`);
  error.status = response.status;
  throw error;
}

const json = async (path, options) => (await request(path, options)).json();

async function map(path, pixels) {
  const response = await request(path);
  if (response.status === 204) return null;
  const values = await through(await response.arrayBuffer(), new DecompressionStream("deflate"));
  if (values.length !== pixels) throw new Error("a map is not of its picture's size");
  return values;
}

const send = (path, method, values, more = {}) =>
  json(path, { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(values), ...more });

export class Api {
  constructor() {
    this.annotator = "";
  }

  at(path, more = {}) {
    return `/api/${path}?${new URLSearchParams({ annotator: this.annotator, ...more })}`;
  }

  project = () => json("/api/project");
  progress = () => json(this.at("progress"));
  state = (index) => json(this.at(`pictures/${index}`));
  image = (index, sha) => `/api/pictures/${index}/image?of=${sha}`;
  start = (index, what, pixels) => map(this.at(`pictures/${index}/start/${what}`), pixels);
  drawn = (index, revision, pixels) => map(this.at(`pictures/${index}/map`, { revision }), pixels);
  addClass = (name) => send("/api/classes", "POST", { name });
  export = () => send("/api/export", "POST", {});

  // `values` is the map, or null if nothing is marked.
  async save(index, change, values) {
    const packed = values && base64(await through(values, new CompressionStream("deflate")));
    return send(this.at(`pictures/${index}`), "PUT", { ...change, map: packed });
  }
}
