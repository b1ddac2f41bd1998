// What becomes of a refined description: kept, or dropped by one of the rules that the paper and its script name.

export const dropRules = ['empty', 'apology', 'repetition', 'incomplete', 'short'] as const;
export type DropRule = (typeof dropRules)[number];

export type Verdict = { kept: true; caption: string } | { kept: false; rule: DropRule };

/** Fewer characters than these are no detailed description. */
export const leastCharacters = 50;

/** Openings of what a model says about itself instead of the picture, bare as `bareWords` gives them. */
const apologies = [
  'im sorry i made a mistake',
  'i am sorry i made a mistake',
  'im sorry for the mistake',
  'i am sorry for the mistake',
  'im sorry but i made a mistake',
  'i apologize for that',
  'i apologise for that',
  'i apologize for the mistake',
  'i apologise for the mistake',
];

/** Small letters and digits with one space between words: apostrophes vanish, all other marks part words. */
export function bareWords(text: string): string {
  return text
    .normalize('NFKC')
    .toLowerCase()
    .replace(/['’‘`´]/g, '')
    .replace(/[^\p{L}\p{N}]+/gu, ' ')
    .trim();
}

/**
 * Judges `reply`, the refined form of `description`. A reply that says the paragraph is already correct stands for the description itself,
 * unless it speaks of repetition. `phrases` drop a caption that holds one of them, whatever its capitals and punctuation.
 */
export function judge(description: string, reply: string, phrases: readonly string[] = []): Verdict {
  let caption = reply.trim();
  if (bareWords(caption) === '') return { kept: false, rule: 'empty' };
  if (/already correct/i.test(caption)) {
    if (/repetition/i.test(caption)) return { kept: false, rule: 'repetition' };
    caption = description.trim();
    if (bareWords(caption) === '') return { kept: false, rule: 'empty' };
  }
  const bare = ` ${bareWords(caption)} `;
  const said = (phrase: string) => bare.includes(` ${phrase} `);
  if (apologies.some(said) || phrases.map(bareWords).some((phrase) => phrase !== '' && said(phrase))) {
    return { kept: false, rule: 'apology' };
  }
  if (/incomplete/i.test(caption)) return { kept: false, rule: 'incomplete' };
  if ([...caption].length < leastCharacters) return { kept: false, rule: 'short' };
  return { kept: true, caption };
}
