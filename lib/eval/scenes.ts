// How an answer about a scene of known things is judged: which of them it names, what it invents, and whether it is a proper answer at all.

/** A scene as `scenes.json` has it; other entries are not needed. */
export interface Scene {
  /** The picture, in the folder `scenes`. */
  file: string;
  /** 'seen': drawings that were in training too; 'held-out': a style that was not. */
  style: string;
  /** The name of its largest object, one of `objects`. */
  main: string;
  objects: { name: string }[];
  background: { colour: string };
}

/** What is wrong with an answer's form; the first that holds, in this order. */
export const failureKinds = ['short', 'unfinished', 'repetitive', 'malformed'] as const;
export type FailureKind = (typeof failureKinds)[number];

/** How an answer agrees with its scene. */
export interface Score {
  style: string;
  mainNamed: boolean;
  /** Of the scene's `objects`, how many are named. */
  objectsNamed: number;
  objects: number;
  /** Names of other things in the answer, each counted once. */
  wrongObjects: number;
  backgroundNamed: boolean;
  failure?: FailureKind;
}

/** A line of the table: shares from 0 to 1 over `scenes` answers. */
export interface Summary {
  style: string;
  scenes: number;
  mainNamed: number;
  /** Of all objects in all scenes. */
  objectsNamed: number;
  wrongObjectsPerScene: number;
  backgroundNamed: number;
  failed: number;
  /** How many answers failed in each way; without those that none did. */
  failures: Partial<Record<FailureKind, number>>;
}

/**
 * Finds names in texts: whole words, capitals ignored, the longest name where one holds another ('teddy bear' is no bear).
 * @returns a function that gives the names in a text, each once, in lower case.
 */
export function nameFinder(names: Iterable<string>): (text: string) => Set<string> {
  const known = [...new Set([...names].map((name) => name.toLowerCase()))].filter((name) => name !== '');
  if (known.length === 0) return () => new Set();
  // the first alternative that fits is taken
  known.sort((a, b) => b.length - a.length || (a < b ? -1 : 1));
  const words = known.map((name) => name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('|');
  const pattern = new RegExp(`(?<![\\p{L}\\p{N}])(?:${words})(?![\\p{L}\\p{N}])`, 'gu');
  return (text) => new Set(text.toLowerCase().match(pattern));
}

/** Four-word runs that stood in the answer before: how often it repeats itself. A word is what stands between spaces, its stops with it. */
export function repeatedRuns(text: string): number {
  const words = text
    .toLowerCase()
    .split(/\s+/)
    .filter((word) => word !== '');
  const runs = words.slice(3).map((_, i) => words.slice(i, i + 4).join(' '));
  return runs.length - new Set(runs).size;
}

/** `finished`: it ended with its end symbol, not at the limit. */
export function failureOf(text: string, finished: boolean): FailureKind | undefined {
  const answer = text.trim();
  if (answer.split(/\s+/).filter((word) => word !== '').length < 4) return 'short';
  if (!finished) return 'unfinished';
  if (repeatedRuns(answer) > 3) return 'repetitive';
  if (!/^\p{Lu}/u.test(answer) || !answer.endsWith('.')) return 'malformed';
  return undefined;
}

/** `find`: a nameFinder of all names that count, the scene's own among them. */
export function scoreAnswer(
  scene: Scene,
  answer: { text: string; finished: boolean },
  find: (text: string) => Set<string>,
): Score {
  const found = find(answer.text);
  const own = new Set(scene.objects.map(({ name }) => name.toLowerCase()));
  const failure = failureOf(answer.text, answer.finished);
  return {
    style: scene.style,
    mainNamed: found.has(scene.main.toLowerCase()),
    objectsNamed: scene.objects.filter(({ name }) => found.has(name.toLowerCase())).length,
    objects: scene.objects.length,
    wrongObjects: [...found].filter((name) => !own.has(name)).length,
    // a finder of its own: a colour may be a thing's name too
    backgroundNamed: nameFinder([scene.background.colour])(answer.text).size > 0,
    ...(failure === undefined ? {} : { failure }),
  };
}

/** One line a style, in the order they come. */
export function summarise(scores: readonly Score[]): Summary[] {
  const byStyle = new Map<string, Score[]>();
  for (const score of scores) byStyle.set(score.style, [...(byStyle.get(score.style) ?? []), score]);
  return [...byStyle].map(([style, all]) => {
    const sum = (value: (score: Score) => number): number => all.reduce((total, score) => total + value(score), 0);
    const failures: Summary['failures'] = {};
    for (const kind of failureKinds) {
      const count = all.filter(({ failure }) => failure === kind).length;
      if (count > 0) failures[kind] = count;
    }
    const objects = sum((score) => score.objects);
    return {
      style,
      scenes: all.length,
      mainNamed: sum(({ mainNamed }) => Number(mainNamed)) / all.length,
      objectsNamed: objects === 0 ? 0 : sum(({ objectsNamed }) => objectsNamed) / objects,
      wrongObjectsPerScene: sum(({ wrongObjects }) => wrongObjects) / all.length,
      backgroundNamed: sum(({ backgroundNamed }) => Number(backgroundNamed)) / all.length,
      failed: sum(({ failure }) => Number(failure !== undefined)) / all.length,
      failures,
    };
  });
}
