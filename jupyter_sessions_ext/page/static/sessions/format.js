// Numbers, sizes and times in human words; all pure, but for the clock that is passed in.

const UNITS = ["B", "kB", "MB", "GB", "TB"];
const STEPS = [
  [60, 1, "s"],
  [3600, 60, "min"],
  [86_400, 3600, "h"],
  [30 * 86_400, 86_400, "day"],
  [365 * 86_400, 30 * 86_400, "month"],
  [Infinity, 365 * 86_400, "year"],
];

/** Say a size in units of 1000, with two or three digits: `1.4 GB`. */
export function size(bytes) {
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value < 9.95 && unit > 1 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`;
}

/** Say a share of one CPU. */
export function percent(value) {
  return `${value > 0 && value < 9.95 ? value.toFixed(1) : Math.round(value)} %`;
}

/** Say how long some seconds are: `3 h`, `2 days`. */
export function duration(seconds) {
  const [, length, unit] = STEPS.find(([limit]) => seconds < limit);
  const number = Math.floor(seconds / length);
  const plural = unit.length > 3 || unit === "day" ? (number === 1 ? "" : "s") : "";
  return `${number} ${unit}${plural}`;
}

/** Say how long ago a time was. */
export function ago(iso, now) {
  const seconds = (now - Date.parse(iso)) / 1000;
  return seconds < 10 ? "just now" : `${duration(seconds)} ago`;
}

/** Say a time exactly, in the reader's time zone. */
export function exact(iso) {
  return new Date(iso).toLocaleString("en", { dateStyle: "medium", timeStyle: "long" });
}

/** Say a count with its noun: `1 session`, `2,345 sessions`. */
export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

/** Split a path into its folder, with the slash, and its last part. */
export function splitPath(path) {
  const at = path.lastIndexOf("/") + 1;
  return [path.slice(0, at), path.slice(at)];
}
