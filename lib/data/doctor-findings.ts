// What can be wrong with a data set: each kind with its name in reports, whether training passes such pairs over, and what to do about it.

export const findingKinds = {
  'no-pairs': {
    skipped: true,
    title: 'data sets without a pair of a picture and a caption',
    one: 'data set without a pair of a picture and a caption',
    advice: 'look whether this is the right file, folder or pattern',
  },
  'shard-problem': {
    skipped: true,
    title: 'shards missing, cut off, damaged or empty',
    one: 'shard missing, cut off, damaged or empty',
    advice: 'fetch or make these shards again; the pairs before the damage are used',
  },
  'missing-picture': {
    skipped: true,
    title: 'pairs whose picture is missing',
    one: 'pair whose picture is missing',
    advice: 'put the files where the list names them, or take the pairs out of it',
  },
  'broken-picture': {
    skipped: true,
    title: 'pictures that cannot be decoded',
    one: 'picture that cannot be decoded',
    advice: 'fetch them again: they are damaged, cut off, or no pictures (often a web page that was stored as one)',
  },
  'large-picture': {
    skipped: true,
    title: 'pictures with too many pixels',
    one: 'picture with too many pixels',
    advice: 'make them smaller (minigpt4 data build --resize), or raise the limit (--max-pixels)',
  },
  'empty-caption': {
    skipped: true,
    title: 'pairs without a caption, or with an empty one',
    one: 'pair without a caption, or with an empty one',
    advice: 'write captions for them, or take them out',
  },
  'turn-order': {
    skipped: true,
    title: 'conversations whose turns are not "human" and "gpt" by turns',
    one: 'conversation whose turns are not "human" and "gpt" by turns',
    advice: 'take out what was said twice or was not answered, or name the speakers as LLaVA does',
  },
  'broken-entry': {
    skipped: true,
    title: 'entries that cannot be read',
    one: 'entry that cannot be read',
    advice: 'put them right: the reason stands beside each',
  },
  'long-caption': {
    skipped: false,
    title: 'captions longer than max_txt_len, whose end sign is cut off',
    one: 'caption longer than max_txt_len, whose end sign is cut off',
    advice: 'raise max_txt_len or shorten them: a model that never sees the end sign does not learn to stop',
  },
  'template-words': {
    skipped: false,
    title: 'captions with words of the conversation template',
    one: 'caption with words of the conversation template',
    advice: 'take these words out: a model learns to write them, and answers end at ###',
  },
  'control-characters': {
    skipped: false,
    title: 'captions with control characters or bytes that are no UTF-8',
    one: 'caption with control characters or bytes that are no UTF-8',
    advice: 'store the captions as clean UTF-8',
  },
  'small-picture': {
    skipped: false,
    title: 'pictures whose shorter side has few pixels',
    one: 'picture whose shorter side has few pixels',
    advice: 'look at some of them: icons and tracking pixels teach nothing',
  },
  'same-pair': {
    skipped: false,
    title: 'pairs whose picture and caption were there before',
    one: 'pair whose picture and caption were there before',
    advice: 'take them out: they count twice in training',
  },
  'same-picture': {
    skipped: false,
    title: 'pictures that were there before with another caption',
    one: 'picture that was there before with another caption',
    advice: 'fine where it is meant; one picture with very many captions (a placeholder of a web site) is not',
  },
} as const;

export type FindingKind = keyof typeof findingKinds;

export interface Finding {
  kind: FindingKind;
  /** In words that follow the count. */
  title: string;
  /** Whether training passes such pairs over. */
  skipped: boolean;
  count: number;
  /** The first ones. */
  examples: { name: string; reason: string }[];
  advice: string;
}

/** Counts by kind, with the first few of each by name. */
export class Findings {
  readonly #found = new Map<FindingKind, Finding>();
  readonly #examples: number;

  constructor(examples: number) {
    this.#examples = examples;
  }

  add(kind: FindingKind, name: string, reason: string): void {
    let finding = this.#found.get(kind);
    if (!finding) {
      const { one, skipped, advice } = findingKinds[kind];
      this.#found.set(kind, (finding = { kind, title: one, skipped, count: 0, examples: [], advice }));
    }
    finding.count++;
    if (finding.count === 2) finding.title = findingKinds[kind].title;
    if (finding.examples.length < this.#examples) finding.examples.push({ name, reason });
  }

  /** In the order of findingKinds. */
  list(): Finding[] {
    return (Object.keys(findingKinds) as FindingKind[]).flatMap((kind) => this.#found.get(kind) ?? []);
  }
}
