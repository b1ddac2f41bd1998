// The curves: which there are, and how uPlot draws them.
/* global document, window, ResizeObserver, getComputedStyle */
import uPlot from './uplot.js';
import { count, find, loss, make, percent, scientific, short } from './format.js';

/** `column` of the server's series; `color` one of style.css. The first one is named in the description for screen readers. */
const charts = [
  {
    title: 'Loss',
    wide: true,
    logarithmic: true,
    format: loss,
    series: [
      { label: 'step', column: 'loss', color: 'grey', width: 1, alpha: 0.75, band: ['lossLow', 'lossHigh'] },
      { label: 'mean of 50', column: 'runningLoss', color: 'blue', width: 2 },
      { label: 'validation', column: 'validation', color: 'orange', width: 2, dots: true },
    ],
  },
  {
    title: 'Learning rate',
    format: scientific,
    zero: true,
    series: [{ label: 'rate', column: 'rate', color: 'blue', width: 1.5 }],
  },
  {
    title: 'Gradient norm',
    logarithmic: true,
    format: short,
    zero: true,
    series: [{ label: 'norm', column: 'gradientNorm', color: 'blue', width: 1 }],
  },
  {
    title: 'Pairs a second',
    format: short,
    zero: true,
    series: [{ label: 'pairs/s', column: 'pairsPerSecond', color: 'blue', width: 1 }],
  },
  {
    title: 'Share of the time',
    format: percent,
    zero: true,
    series: [
      { label: 'waiting', column: 'waiting', color: 'orange', width: 1.5 },
      { label: 'vision', column: 'vision', color: 'blue', width: 1.5 },
    ],
  },
];

const together = uPlot.sync('run');
/** Steps that are shown after a drag; undefined: all of them. */
let zoom;
let newest;

/** Steps and values of a chart: the run's points, and between them the validations' own steps. */
function dataOf({ series }, { columns, validations }) {
  const steps = columns.step ?? [];
  const lines = series.flatMap(({ column, band }) => [...(band ?? []), ...(column === 'validation' ? [] : [column])]);
  const points = [steps, ...lines.map((name) => columns[name] ?? [])];
  if (!series.some(({ column }) => column === 'validation')) return points;
  const valid = validations.filter((one) => one.loss !== null);
  if (valid.length === 0) return [...points, steps.map(() => null)];
  return uPlot.join([points, [valid.map(({ step }) => step), valid.map((one) => one.loss)]]);
}

class Chart {
  constructor(kind) {
    this.kind = kind;
    this.legend = make('div');
    this.plot = make('div', { className: 'plot', role: 'img' });
    this.element = make(
      'figure',
      { className: kind.wide ? 'curve wide' : 'curve' },
      make('figcaption', {}, make('h3', { text: kind.title }), this.legend),
      this.plot,
    );
    new ResizeObserver(() => this.resize()).observe(this.plot);
  }

  get size() {
    return { width: Math.max(1, this.plot.clientWidth), height: Math.max(1, this.plot.clientHeight) };
  }

  resize() {
    const { width, height } = this.size;
    if (this.u && (this.u.width !== width || this.u.height !== height)) this.u.setSize({ width, height });
  }

  draw(run) {
    const steps = run.columns.step ?? [];
    const { label, column } = this.kind.series[0];
    this.plot.setAttribute(
      'aria-label',
      steps.length === 0
        ? `${this.kind.title}: no steps yet`
        : `${this.kind.title} over ${count(steps.at(-1))} steps; ${label} now ${this.kind.format(run.columns[column].at(-1))}`,
    );
    const data = dataOf(this.kind, run);
    if (data[0].length === 0) return this.empty();
    if (this.u) this.u.setData(data);
    else this.build(data);
    if (this.u.cursor.left < 0) showNewest(this.u);
  }

  empty() {
    this.forget();
    if (!this.plot.firstChild) this.plot.append(make('div', { className: 'empty', text: 'No steps yet' }));
  }

  /** The colours or the scale changed: the next draw builds it anew. */
  forget() {
    if (!this.u) return;
    together.unsub(this.u);
    this.u.destroy();
    this.u = undefined;
    this.legend.replaceChildren();
  }

  build(data) {
    this.plot.replaceChildren();
    this.u = new uPlot({ ...this.size, ...optionsOf(this.kind, this.legend) }, data, this.plot);
    together.sub(this.u);
  }
}

function optionsOf(kind, legend) {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(`--${name}`).trim();
  const logarithmic = kind.logarithmic && find('logarithmic').checked;
  const format = (_, value) => (value === null || value === undefined ? '–' : kind.format(value));
  const series = [
    { label: 'at step', value: (_, value) => (value === null || value === undefined ? '–' : count(value)) },
  ];
  const bands = [];
  for (const { label, column, color: name, width, alpha, band, dots } of kind.series) {
    if (band) {
      bands.push({ series: [series.length + 1, series.length], fill: mixed(color(name), 0.28) });
      for (const edge of band) series.push({ label: edge, class: 'hidden-series', points: { show: false } });
    }
    series.push({
      label,
      stroke: alpha ? mixed(color(name), alpha) : color(name),
      width,
      value: format,
      spanGaps: column === 'validation' || undefined,
      points: dots ? { show: true, size: 6, fill: color(name) } : { show: false },
    });
  }
  // validations stand on steps of their own, at which the run's points are absent, not gaps
  for (const line of series.slice(1)) line.spanGaps = true;
  const axis = {
    stroke: color('soft'),
    grid: { stroke: color('line'), width: 1 },
    ticks: { show: false },
    font: '12px system-ui, sans-serif',
  };
  return {
    legend: { live: true, mount: (_, table) => legend.replaceChildren(table), markers: { width: 3 } },
    cursor: {
      y: false,
      sync: { key: together.key, setSeries: false },
      drag: { x: true, y: false, dist: 8 },
      points: { size: 6 },
      focus: { prox: -1 },
    },
    padding: [10, 24, 0, 0],
    scales: {
      x: { time: false, auto: () => zoom === undefined },
      y: logarithmic
        ? { distr: 3 }
        : {
            range: (_, low, high) =>
              low === null
                ? [0, 1]
                : uPlot.rangeNum(kind.zero ? Math.min(0, low) : low, high, {
                    min: { pad: kind.zero ? 0 : 0.08, soft: 0, mode: kind.zero ? 1 : 3 },
                    max: { pad: 0.1, soft: 0, mode: 0 },
                  }),
          },
    },
    axes: [
      {
        ...axis,
        size: 30,
        gap: 6,
        space: 70,
        values: (_, steps) => steps.map((step) => (Number.isInteger(step) ? count(step) : '')),
      },
      {
        ...axis,
        size: 58,
        gap: 8,
        space: 34,
        values: (_, values) => values.map((value) => (value === null ? '' : tick(kind, value))),
      },
    ],
    series,
    bands,
    hooks: {
      setLegend: [(u) => u.cursor.left < 0 && showNewest(u)],
      setScale: [(u, key) => key === 'x' && noteZoom(u)],
    },
  };
}

/** The legend's values while nothing is pointed at. */
function showNewest(u) {
  const idxs = u.data.map((values) => values.findLastIndex((value) => value !== null && value !== undefined));
  u.setLegend({ idxs: idxs.map((index) => (index < 0 ? null : index)) }, false);
}

/** A tick needs fewer digits than a value. */
const tick = (kind, value) => (kind.format === loss ? short(value) : kind.format(value));

function mixed(hex, share) {
  return `${hex}${Math.round(share * 255)
    .toString(16)
    .padStart(2, '0')}`;
}

function noteZoom(u) {
  const steps = u.data[0];
  const { min, max } = u.scales.x;
  if (steps.length === 0 || min === null || min === undefined) return;
  const all = min <= steps[0] && max >= steps.at(-1);
  zoom = all ? undefined : { min, max };
  find('whole').hidden = all;
}

const drawn = charts.map((kind) => new Chart(kind));
find('curves').append(...drawn.map(({ element }) => element));

export function drawCurves(run) {
  newest = run;
  for (const chart of drawn) chart.draw(run);
}

function rebuild() {
  for (const chart of drawn) chart.forget();
  if (newest) drawCurves(newest);
}
find('logarithmic').addEventListener('change', rebuild);
window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', rebuild);
find('whole').addEventListener('click', () => {
  zoom = undefined;
  if (newest) drawCurves(newest);
});
