// Numbers, times and elements of the page; text only ever becomes text nodes.
/* global document */

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });

/** 12,345 */
export const count = (value) => whole.format(value);

/** Three digits and more where they matter: 0.0123, 1.23, 12.3, 1,234. */
export function short(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–';
  const size = Math.abs(value);
  if (size >= 1000) return count(value);
  if (size > 0 && size < 0.001) return scientific(value);
  return String(Number(value.toPrecision(3)));
}

/** 2.5e-4, as rates are written in configurations. */
export const scientific = (value) =>
  value === null || value === undefined
    ? '–'
    : value === 0
      ? '0'
      : String(Number(value.toPrecision(3)).toExponential());

/** Four decimals. */
export const loss = (value) => (value === null || value === undefined ? '–' : value.toFixed(4));

export const percent = (share) => (share === null || share === undefined ? '–' : `${Math.round(share * 100)} %`);

/** 45 s, 12 min, 3 h 07 min, 2 d 4 h */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return 'unknown';
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  const minutes = String(Math.floor((s % 3600) / 60)).padStart(2, '0');
  if (s < 86400) return `${Math.floor(s / 3600)} h ${minutes} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

const moment = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' });
export const time = (iso) => (iso === undefined ? '–' : moment.format(new Date(iso)));

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: 'short' });
const day = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', hour: 'numeric', minute: '2-digit' });
/** As short as can be understood today. */
export function shortTime(iso) {
  const date = new Date(iso);
  return (date.toDateString() === new Date().toDateString() ? clock : day).format(date);
}

export const fileName = (path) => path.replace(/^.*[\\/]/, '') || path;

export const find = (id) => document.getElementById(id);

/** An element with attributes (and `text`, `className`) and children. */
export function make(tag, { text, className, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Writes only what changes, so that screen readers and selections are left in peace. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
