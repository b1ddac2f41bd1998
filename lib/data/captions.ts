// The rules for texts: what the original's `blip_caption` does to a caption, and when there is nothing left to learn from.

/** White space as Python's `\s` has it: with the separators 0x1c to 0x1f and 0x85, without the byte order mark. */
const space = '[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]';
const spaces = new RegExp(`${space}{2,}`, 'g');

/**
 * The original's `blip_caption`: small letters; each of `. ! " ( ) * # : ; ~` becomes a space, runs of white space one space; the first
 * `maxWords` words; `prompt` in front. An empty caption stays empty, whatever the prompt.
 */
export function blipCaption(caption: string, { maxWords, prompt }: { maxWords: number; prompt: string }): string {
  const plain = caption
    .toLowerCase()
    .replace(/[.!"()*#:;~]/g, ' ')
    .replace(spaces, ' ')
    .replace(/\n+$/, '')
    .replace(/^ +| +$/g, '');
  return isBlank(plain) ? '' : prompt + plain.split(' ').slice(0, maxWords).join(' ');
}

/** Nothing but white space. */
export function isBlank(text: string): boolean {
  return !/\S/.test(text);
}

/** The text with the rules applied, if there are any. */
export function applyRules(text: string, rules: { maxWords: number; prompt: string } | undefined): string {
  return rules ? blipCaption(text, rules) : text;
}
