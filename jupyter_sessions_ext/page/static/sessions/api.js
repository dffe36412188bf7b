// Requests to the server, below its base URL: the administration API, kernelspecs, documents.

const page = document.documentElement.dataset;

export const FRONT_END = page.frontEnd ?? null;
export const EVENTS = `${page.baseUrl}api/events/subscribe`;
const API = `${page.baseUrl}sessions/api/v1`;

let clockAhead = 0;
const known = new Map();

/** The server refused: `status` and its reason. */
export class Refused extends Error {
  constructor(status, message) {
    super(message || `The server answered ${status}.`);
    this.status = status;
  }
}

/** The server did not answer at all. */
export class Gone extends Error {}

/** The time of the server's clock, which may differ from this computer's, in milliseconds. */
export function now() {
  return Date.now() + clockAhead;
}

/** The address of a session's document in the server's application, or null if it has none. */
export function documentUrl(session) {
  const prefix = session.type === "notebook" ? page.notebook : page.file;
  if (!prefix || !session.path || !["notebook", "file"].includes(session.type)) return null;
  return page.baseUrl + prefix + session.path.split("/").map(encodeURIComponent).join("/");
}

async function send(method, url, { body, headers = {}, signal } = {}) {
  const options = {
    method,
    headers: { ...headers },
    signal,
    cache: "no-store",
    credentials: "same-origin",
  };
  if (method !== "GET") options.headers["X-XSRFToken"] = cookie("_xsrf");
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let reply;
  try {
    reply = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Gone("The server does not answer.", { cause: error });
  }
  const date = Date.parse(reply.headers.get("Date"));
  // The header has whole seconds: less than that is no difference.
  if (Math.abs(date - Date.now()) > 2000) clockAhead = date - Date.now();
  if (!reply.ok && reply.status !== 304) throw new Refused(reply.status, await reason(reply));
  return reply;
}

/** Read why a request was refused: the API's own JSON, or nothing if a proxy answered. */
async function reason(reply) {
  try {
    const body = await reply.json();
    return body.message || body.reason || "";
  } catch {
    return "";
  }
}

function cookie(name) {
  return document.cookie.match(new RegExp(`(?:^|; )${name}=([^;]*)`))?.[1] ?? "";
}

function address(path, query = {}) {
  const given = Object.entries(query).filter(
    ([, value]) => value !== "" && value !== null && value !== undefined,
  );
  return `${API}${path}${given.length ? `?${new URLSearchParams(given)}` : ""}`;
}

/** Read a list; what was read before under this name is not sent again if it is the same. */
async function list(name, path, query, signal) {
  const url = address(path, query);
  const before = known.get(name);
  const headers = before?.url === url && before.etag ? { "If-None-Match": before.etag } : {};
  const reply = await send("GET", url, { headers, signal });
  if (reply.status === 304) return before.data;
  const data = await reply.json();
  known.set(name, { url, etag: reply.headers.get("ETag"), data });
  return data;
}

const session = (id) => `/sessions/${encodeURIComponent(id)}`;
const kernel = (id) => `/kernels/${encodeURIComponent(id)}`;
const read = async (path, query) => (await send("GET", address(path, query))).json();

export const readSessions = (query, signal) => list("sessions", "/sessions", query, signal);
export const readOthers = (query, signal) => list("others", "/sessions", query, signal);
export const readKernels = (signal) => list("kernels", "/kernels", { limit: 1000 }, signal);
export const readEvents = (id, cursor) => read("/events", { session: id, limit: 50, cursor });
export const readServer = () => read("");
export const readHealth = () => read("/health");

/** Read one session, and the ETag to change it with. */
export async function readSession(id) {
  const reply = await send("GET", address(session(id)));
  return { item: await reply.json(), etag: reply.headers.get("ETag") };
}

export async function readLog(id) {
  return (await send("GET", address(`${session(id)}/log`))).text();
}

/** The address of what its kernel ran and printed, as a notebook. */
export const transcriptUrl = (id) => address(`${session(id)}/transcript`, { format: "ipynb" });

/** Read it, and the name that its file is to have. */
export async function readTranscript(id) {
  const reply = await send("GET", transcriptUrl(id));
  const [, name] = reply.headers.get("Content-Disposition").match(/''(.*)$/);
  return { name: decodeURIComponent(name), file: await reply.blob() };
}

/** Read the kernelspecs' names: `{python3: "Python 3 (ipykernel)"}`. */
export async function readKernelNames() {
  const { kernelspecs } = await (await send("GET", `${page.baseUrl}api/kernelspecs`)).json();
  return Object.fromEntries(
    Object.values(kernelspecs).map(({ name, spec }) => [name, spec.display_name]),
  );
}

export async function changeSession(id, change, etag) {
  await send("PATCH", address(session(id)), {
    body: change,
    headers: etag ? { "If-Match": etag } : {},
  });
}

/** Act on many sessions: `target` is `{ids}` or `{filter, all}`. */
export async function act(action, target, dryRun = false) {
  const body = { action, ...target, dry_run: dryRun };
  return (await send("POST", address("/sessions/actions"), { body })).json();
}

export async function attachKernel(id, body) {
  return (await send("POST", address(`${kernel(id)}/attach`), { body })).json();
}

export async function shutDownKernel(id) {
  await send("DELETE", address(kernel(id)));
}
