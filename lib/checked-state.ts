// States that are read back from a file: what random states look like, and in words what is wrong where one is not as it was written.
import { z } from 'zod';

/** Of Random. All zero is the one state that such a generator never leaves. */
export const randomState = z.custom<[number, number, number, number]>(
  (value) =>
    Array.isArray(value) &&
    value.length === 4 &&
    value.every((word) => Number.isInteger(word) && word >= 0 && word < 2 ** 32) &&
    value.some((word) => word !== 0),
  { error: 'four whole numbers from 0 to 4294967295, not all 0' },
);

/** Where the first fault is, what is expected there, which the rules' own messages say, and what was found. */
export function faultIn(value: unknown, error: z.ZodError): string {
  const { path, message } = error.issues[0]!;
  let found = value;
  for (const key of path)
    found = typeof found === 'object' && found !== null ? (found as Record<PropertyKey, unknown>)[key] : undefined;
  const at = path.length > 0 ? `${path.join('.')}: ` : '';
  const text = found === undefined ? 'none' : JSON.stringify(found);
  return `${at}expected ${message}, found ${text.length > 80 ? `${text.slice(0, 80)}…` : text}`;
}
