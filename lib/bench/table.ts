// A record as tables: for the terminal, and as the README shows it.
import {
  LIMIT_NAMES,
  sameSubject,
  type BenchRecord,
  type LimitName,
  type Loading,
  type Result,
  type Subject,
} from './record.js';

interface Table {
  title: string;
  head: string[];
  rows: string[][];
}

const OURS = 'minigpt4';
/** The peer that pictures are compared with. */
const PICTURE_PEER = { program: 'onnxruntime-node', type: 'int8' };

const significant = (value: number): string =>
  value >= 1000 ? value.toFixed(0) : Number(value.toPrecision(3)).toString();
const percent = (share: number): string => `${(100 * share).toFixed(0)} %`;
const times = (ratio: number): string => `${ratio.toFixed(2)}×`;
const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(2)} GB`;
const seconds = (ms: number): string => `${(ms / 1000).toFixed(2)} s`;
const marked = (disturbed: boolean): string => (disturbed ? '*' : '');
const NONE = '';

/** `7B Q4_0`. */
const nameOf = ({ model, type }: Subject): string =>
  `${model} ${type}`.replace(/\b\d.*?[mb]\b|\bq\d\w*|\bb?f\d+\b/g, (word) => word.toUpperCase());

const whoOf = ({ program, level, threads }: Subject, record: BenchRecord): string =>
  [
    program,
    ...(level === undefined ? [] : [level]),
    ...(threads === record.threads ? [] : [`${threads} thread${threads === 1 ? '' : 's'}`]),
  ].join(', ');

/** What a result of ours is compared with: the same test of a program that took its runs in turn with it. */
function peerOf(result: Result, { results }: BenchRecord): Result | undefined {
  if (result.program !== OURS) return undefined;
  return results.find(
    (other) =>
      other.program !== OURS &&
      other.model === result.model &&
      other.threads === result.threads &&
      other.test === result.test &&
      other.round === result.round &&
      (other.type === result.type || (other.program === PICTURE_PEER.program && other.type === PICTURE_PEER.type)),
  );
}

/** `43.5 · 12 % · 1.48×`: the rate, its share of the limit, and how many times the peer's. */
function rateCell(result: Result | undefined, record: BenchRecord, shown: (result: Result) => string): string {
  if (!result) return NONE;
  const peer = peerOf(result, record);
  return [
    shown(result) + marked(result.disturbed),
    ...(result.shareOfLimit === undefined ? [] : [percent(result.shareOfLimit)]),
    ...(peer ? [times(result.perSecond / peer.perSecond)] : []),
  ].join(' · ');
}

const rate = ({ perSecond }: Result): string => significant(perSecond);
const milliseconds = ({ medianMs }: Result): string => `${significant(medianMs)} ms`;

const loadCell = (load: Loading | undefined): string =>
  load
    ? `${seconds(load.warm.medianMs)}${marked(load.warm.disturbed)}${load.cold ? ` / ${seconds(load.cold.medianMs)}${marked(load.cold.disturbed)}` : ''}`
    : NONE;

function peakCell(load: Loading | undefined): string {
  const peak = load?.peakBytes ?? load?.loadedPeakBytes;
  return load && peak !== undefined ? `${gigabytes(peak)} · ${times(peak / load.fileBytes)}` : NONE;
}

/** Results and loads of the same program, file, level and threads; those for which `take` holds. */
function subjectsOf(record: BenchRecord, take: (result: Result) => boolean) {
  const found: { subject: Subject; results: Result[]; load: Loading | undefined }[] = [];
  for (const result of record.results) {
    if (!take(result)) continue;
    const known = found.find(({ subject }) => sameSubject(subject, result));
    if (known) known.results.push(result);
    else
      found.push({
        subject: result,
        results: [result],
        load: record.loads.find((load) => sameSubject(load, result)),
      });
  }
  return found;
}

function languageTable(record: BenchRecord): Table {
  const columns = ['pp64', 'pp512', 'tg64'];
  const rows = subjectsOf(record, ({ test }) => /^(pp|tg|chats)/.test(test)).map(({ subject, results, load }) => {
    const of = (test: string) => results.find((result) => result.test === test);
    const [alone, chats] = [of('tg64'), of('chats8')];
    return [
      nameOf(subject),
      whoOf(subject, record),
      ...columns.map((test) => rateCell(of(test), record, rate)),
      chats
        ? `${rate(chats)}${marked(chats.disturbed)}${alone ? ` · ${times(chats.perSecond / alone.perSecond)}` : ''}`
        : NONE,
      loadCell(load),
      peakCell(load),
    ];
  });
  return {
    title:
      'Language models, tokens/s · share of the limit · times node-llama-cpp. pp: reading a prompt; tg: writing; ' +
      '8 chats: writing for all together, · times a single one. Loads: median from the cache / from the disk, right after another process has touched and freed as much memory; on a virtual machine they can vary by factors. Peak: · times the file',
    head: ['model', 'program', ...columns, '8 chats', 'loads', 'memory peak'],
    rows,
  };
}

/** Of the tests of pictures those that a record has, as columns. */
const PICTURE_TESTS = new Map([
  ['enc', 'one picture'],
  ['vit', 'its ViT alone'],
  ['first', 'first token'],
]);

function pictureTable(record: BenchRecord): Table {
  const tests = [...PICTURE_TESTS].filter(([name]) => record.results.some(({ test }) => test === name));
  const rows = subjectsOf(record, ({ test }) => PICTURE_TESTS.has(test)).map(({ subject, results, load }) => [
    nameOf(subject),
    whoOf(subject, record),
    ...tests.map(([name]) =>
      rateCell(
        results.find(({ test }) => test === name),
        record,
        milliseconds,
      ),
    ),
    loadCell(load),
    peakCell(load),
  ]);
  return {
    title:
      'One picture, milliseconds · share of the limit · times onnxruntime-node in int8, which computes the ViT alone and no Q-Former; ' +
      'first token: from a new picture to the first token of its description',
    head: ['model', 'program', ...tests.map(([, title]) => title), 'loads', 'memory peak'],
    rows,
  };
}

function busyTable({ busy, ...record }: BenchRecord): Table {
  return {
    title: 'With one core kept busy by another process: tokens/s · share of the rate without',
    head: ['model', 'program', 'test', 'quiet', 'busy'],
    rows: busy.map((result) => [
      nameOf(result),
      whoOf(result, { busy, ...record }),
      result.test,
      significant(result.quietPerSecond),
      `${significant(result.busyPerSecond)}${marked(result.disturbed)} · ${percent(result.share)}`,
    ]),
  };
}

function limitTable(record: BenchRecord): Table {
  const names = (Object.keys(LIMIT_NAMES) as LimitName[]).filter((name) =>
    record.limits.some((limits) => limits[name]),
  );
  return {
    title:
      'The limits: what the machine did at best, GB/s of memory, TFLOP/s and TOP/s of products (a multiply-add counts as two)',
    head: ['level', 'threads', ...names.map((name) => LIMIT_NAMES[name])],
    rows: record.limits.map((limits) => [
      limits.level + marked(limits.disturbed),
      String(limits.threads),
      ...names.map((name) => (limits[name] ? significant(limits[name].best) : NONE)),
    ]),
  };
}

const tablesOf = (record: BenchRecord): Table[] =>
  [limitTable, languageTable, pictureTable, busyTable]
    .map((make) => make(record))
    .filter(({ rows }) => rows.length > 0);

const isDisturbed = ({ limits, results, loads, busy }: BenchRecord): boolean =>
  [...limits, ...results, ...busy, ...loads.flatMap(({ warm, cold }) => (cold ? [warm, cold] : [warm]))].some(
    ({ disturbed }) => disturbed,
  );

/** What the tables were taken on, and what their marks mean. */
function words(record: BenchRecord): string[] {
  const { machine, threads, peers, disturbedAbove } = record;
  const named = Object.entries(peers).map(([name, version]) => `${name} ${version}`);
  return [
    `${machine.cpu}, ${threads} of ${machine.cores} cores, ${(machine.memoryBytes / 2 ** 30).toFixed(0)} GiB, ${machine.compiler}, ` +
      `commit ${machine.commit}, ${record.date.slice(0, 10)}${named.length ? `; beside ${named.join(', ')}` : ''}. Random weights at real shapes; medians.`,
    ...(isDisturbed(record)
      ? [
          `* disturbed: threads waited for a core, or the host kept it, for more than ${percent(disturbedAbove)} of the time.`,
        ]
      : []),
  ];
}

/** For a terminal. */
export function textOf(record: BenchRecord): string {
  const parts = tablesOf(record).map(({ title, head, rows }) => {
    const lines = [head, ...rows];
    const widths = head.map((_, column) => Math.max(...lines.map((line) => line[column]!.length)));
    const aligned = lines.map((line) =>
      line
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join('  ')
        .trimEnd(),
    );
    return [title, ...aligned].join('\n');
  });
  const left = record.skipped.map((line) => `left out: ${line}`);
  return `${[words(record).join('\n'), ...parts, ...(left.length ? [left.join('\n')] : [])].join('\n\n')}\n`;
}

/** For the README. */
export function markdownOf(record: BenchRecord): string {
  const parts = tablesOf(record).map(({ title, head, rows }) => {
    const line = (cells: string[]): string => `| ${cells.map((cell) => cell.replace(/[*|]/g, '\\$&')).join(' | ')} |`;
    return [`${title}:`, '', line(head), `|${'---|'.repeat(head.length)}`, ...rows.map(line)].join('\n');
  });
  return [words(record).join(' ').replace('* disturbed', '\\* disturbed'), ...parts].join('\n\n');
}
