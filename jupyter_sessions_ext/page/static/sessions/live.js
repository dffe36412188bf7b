// When to read again: as the server's events say, every few seconds while the page is visible, and
// with growing pauses while the server is gone.

import { EVENTS, Gone } from "./api.js";

const EVERY = 5000;
const GATHER = 200;
const LONGEST = 30_000;
const OURS = "https://schema.jupyter.org/jupyter_sessions_ext/";
const KERNEL_ACTIONS = "https://events.jupyter.org/jupyter_server/kernel_actions/";

const pause = (failures) => Math.min(LONGEST, 1000 * 2 ** failures) * (0.75 + Math.random() / 2);

/** Calls `read`; tells `onEvent` each event of a session, `onState` live, polling or gone. */
export class Live {
  #timer = 0;
  #gathering = 0;
  #reading = false;
  #again = false;
  #failures = 0;
  #reconnecting = 0;
  #socketFailures = 0;
  #socket = null;

  constructor({ read, onEvent, onState }) {
    Object.assign(this, { read, onEvent, onState });
    document.addEventListener("visibilitychange", () => this.now());
    this.#connect();
    this.now();
  }

  /** Read now, or again when the reading that is under way is done. */
  async now() {
    clearTimeout(this.#timer);
    if (document.hidden) return;
    this.#again = this.#reading;
    if (this.#reading) return;
    this.#reading = true;
    try {
      await this.read();
      if (this.#failures) this.#connect();
      this.#failures = 0;
      this.onState(this.#open ? "live" : "polling");
    } catch (error) {
      if (!(error instanceof Gone)) throw error;
      this.#failures += 1;
      this.onState("gone");
    } finally {
      this.#reading = false;
      const wait = this.#failures ? pause(this.#failures - 1) : EVERY;
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.now(), this.#again ? 0 : wait);
    }
  }

  /** Read soon, once for all events that come together. */
  soon() {
    this.#gathering ||= setTimeout(() => {
      this.#gathering = 0;
      this.now();
    }, GATHER);
  }

  get #open() {
    return this.#socket.readyState === WebSocket.OPEN;
  }

  #connect() {
    if (this.#socket?.readyState <= WebSocket.OPEN) return;
    clearTimeout(this.#reconnecting);
    const url = new URL(EVENTS, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = (this.#socket = new WebSocket(url));
    socket.onopen = () => {
      this.#socketFailures = 0;
      this.now();
    };
    socket.onmessage = ({ data }) => this.#hear(JSON.parse(data));
    socket.onclose = () => {
      this.onState(this.#failures ? "gone" : "polling");
      this.#reconnecting = setTimeout(() => this.#connect(), pause(this.#socketFailures));
      this.#socketFailures += 1;
    };
  }

  #hear(event) {
    if (event.schema_id.startsWith(OURS)) this.onEvent(event);
    else if (!event.schema_id.startsWith(KERNEL_ACTIONS)) return;
    this.soon();
  }
}
