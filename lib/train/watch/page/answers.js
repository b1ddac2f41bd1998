// What the model says of the fixed pictures, after any of the validations so far.
import { count, fileName, find, loss, make, write } from './format.js';

/** The validations that have answers. */
let answered = [];
/** Place in `answered`; undefined: the newest one, always. */
let chosen;
let cards = [];
let page;

export function showAnswers(run) {
  page = run;
  answered = run.validations.filter(({ answers }) => answers.length > 0);
  find('no-answers').hidden = answered.length > 0;
  find('when').hidden = answered.length === 0;
  if (chosen !== undefined && chosen >= answered.length - 1) chosen = undefined;
  draw();
}

function draw() {
  const newest = answered.length - 1;
  const at = chosen ?? newest;
  const slider = find('which');
  slider.max = Math.max(0, newest);
  slider.value = Math.max(0, at);
  slider.disabled = newest < 1;
  find('earlier').disabled = at <= 0;
  find('later').disabled = at >= newest;
  const validation = answered[at];
  if (!validation) {
    cards = [];
    find('cards').replaceChildren();
    return;
  }
  const text = `after step ${count(validation.step)}${chosen === undefined ? ', the newest' : ''}`;
  slider.setAttribute('aria-valuetext', text);
  write(
    find('when-text'),
    `Step ${count(validation.step)}${validation.loss === null ? '' : ` · loss ${loss(validation.loss)}`}`,
  );
  const wanted = answered[newest].answers;
  const same =
    cards.length === wanted.length &&
    wanted.every(({ picture, prompt }, i) => cards[i].path === page.pictures[picture] && cards[i].prompt === prompt);
  if (!same) {
    cards = wanted.map(makeCard);
    find('cards').replaceChildren(...cards.map(({ element }) => element));
  }
  cards.forEach((card, i) => card.show(i, at));
}

/** The same question of the same picture, wherever it stands among a validation's answers. */
function answerOf(validation, card, i) {
  const asked = ({ picture, prompt }) => page.pictures[picture] === card.path && prompt === card.prompt;
  const { answers } = validation;
  return (answers[i] && asked(answers[i]) ? answers[i] : answers.find(asked))?.text;
}

function makeCard({ picture, prompt }) {
  const path = page.pictures[picture];
  const image = make('img', { src: `pictures/${picture}`, alt: `The picture ${fileName(path)}`, loading: 'lazy' });
  const frame = make('div', { className: 'picture' }, image);
  image.addEventListener('error', () => frame.replaceChildren('not to be found'));
  const answer = make('p', { className: 'answer' });
  const list = make('ol');
  const summary = make('summary');
  const history = make('details', {}, summary, list);
  const element = make(
    'article',
    { className: 'card' },
    frame,
    make('h3', {}, make('b', { text: fileName(path) }), ` ${prompt}`),
    answer,
    history,
  );
  const card = { element, path, prompt, show };
  let listed = '';

  function show(i, at) {
    const text = answerOf(answered[at], card, i);
    answer.classList.toggle('none', !text);
    write(answer, text === undefined ? 'not asked then' : text || 'an empty answer');
    history.hidden = answered.length < 2;
    write(summary, `All ${count(answered.length)} answers`);
    const key = history.open ? `${answered.length} ${answered.at(-1).step}` : '';
    if (key === listed) return;
    listed = key;
    if (!history.open) return;
    list.replaceChildren(
      ...answered
        .map((validation) =>
          make(
            'li',
            {},
            make('span', { text: `step ${count(validation.step)}` }),
            make('span', { text: answerOf(validation, card, i) ?? '–' }),
          ),
        )
        .reverse(),
    );
  }
  history.addEventListener('toggle', () => draw());
  return card;
}

function choose(place) {
  const newest = answered.length - 1;
  chosen = place >= newest ? undefined : Math.max(0, place);
  draw();
}
find('which').addEventListener('input', (event) => choose(Number(event.target.value)));
find('earlier').addEventListener('click', () => choose((chosen ?? answered.length - 1) - 1));
find('later').addEventListener('click', () => choose((chosen ?? answered.length - 1) + 1));
