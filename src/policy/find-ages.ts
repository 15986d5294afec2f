import { type Lexicon, ORDINALS, SCHOOL_YEARS } from './lexicon.js';
import type { Stream } from './normalise.js';

const ADULT = 18;
/** Words of the longest number: "dix sept", "tiga belas". */
const MAX_NUMBER_WORDS = 2;
/** Words that may stand between a number and its unit: "twelve and a half years". */
const BETWEEN = new Set([
  'and',
  'a',
  'half',
  'to',
  'or',
  'full',
  'whole',
  'short',
  'e',
  'meio',
  'y',
  'medio',
  'et',
  'demi',
]);
/** Units of an age by how many of them make a year. */
const UNITS_OF_A_YEAR: ReadonlyMap<string, number> = new Map([
  ['months', 12],
  ['month', 12],
  ['mo', 12],
  ['mos', 12],
  ['weeks', 52],
  ['week', 52],
  ['days', 365],
  ['day', 365],
  ['y', 1],
  ['yr', 1],
  ['year', 1],
  ['years', 1],
]);
/** The last grade of a school. */
const LAST_GRADE = 12;
const BEFORE_GRADE = new Set(['in', 'of', 'from', 'a', 'is', 's']);
const OLD = new Set(['old', 'olds', 'o', 'age', 'young']);
const ABOUT = new Set([
  'of',
  'is',
  'about',
  'around',
  'only',
  'just',
  'at',
  'was',
  'de',
  'being',
  'approximately',
  'von',
]);
const GRADES = new Set(['grade', 'grader', 'graders', 'grades', 'birthday', 'birthdays']);
const ENDINGS = new Set(['st', 'nd', 'rd', 'th']);
/** What stands before the age of a person without a unit: "she just turned 12". */
const TURNED = new Set(['turned', 'turns', 'turning', 'shes', 'hes', 'barely', 'aged', 'looks', 'looking']);
const PRONOUNS = new Set(['she', 'he', 'they', 'who', 'girl', 'boy', 'her', 'his']);
/** What stands before a year of birth. */
const BORN: ReadonlySet<string> = new Set(
  'born dob birthyear geboren née ne nacida nacido nata nato nascida nascido née né född født urodzona urodzony родилась родился рожденная'.split(
    ' ',
  ),
);
const HAN_NUMBER = /^[一二三四五六七八九十]{1,3}$/;
/** Who is in a year at school: "year 7 pupil". */
const PUPILS = /^(?:pupil|student|class|kid|girl|boy)/;
/** Things that are aged for years, and what makes years no age. */
const AGED_THINGS =
  /^(?:wines?|whisk(?:e?y|ies)|rum|cheese|bourbon|scotch|brandy|vinegar|cognac|tequila|port|beef|cars?|trucks?|houses?|buildings?|trees?|oaks?|bikes?|motorcycles?)$/;
const NO_AGE = new Set(['ago', 'after', 'later', 'since', 'earlier']);
const HAN_DIGITS = '〇一二三四五六七八九';
const CJK_AGE =
  /(?<![0-9〇一二三四五六七八九十百])([0-9]{1,3}|[〇一二三四五六七八九十]{1,4}) ?(?:岁|歲|歳|才|さい|周岁|살|세|ขวบ|ปี)/gu;
const THAI_OR_HAN_RANGE =
  /(?:未满|未滿|不满|未満|低于|小于)(?:18|十八|17|十七|16|十六|15|十五|14|十四)|(?:18|十八)(?:岁|歳|才|歲)(?:以下|未満|未满)|미만|ต่ำกว่า ?18/u;
const KOREAN_AGE = /(?:한|두|세|네|다섯|여섯|일곱|여덟|아홉) ?살/u;
const KOREAN_TENS =
  /열(?:여덟|아홉) ?살|(스물|서른|마흔|쉰|예순|일흔|여든|아흔)(?:한|두|세|네|다섯|여섯|일곱|여덟|아홉)? ?살/gu;

/** True where a text gives an age below 18 in numbers or words. @param parts letters and digits apart */
export function findsMinorAge(parts: Stream, lexicon: Lexicon): boolean {
  const words = parts.map(({ text }) => text);
  for (let i = 0; i < words.length; i += 1) {
    if (!mayBeginAge(words[i] ?? '', lexicon)) continue;
    if (isUnder(words, i, lexicon) || isBornLate(words, i)) return true;
    const number = numberAt(words, i, lexicon);
    if (number === undefined) {
      if (isGrade(words, i)) return true;
      continue;
    }
    const { value, next } = number;
    if (isUnderInUnits(words, value, next)) return true;
    if (value >= ADULT || isPartOfLarger(words, i, lexicon) || isAgedThing(words, i)) continue;
    if (
      hasUnit(words, parts, next, lexicon) ||
      isSchoolYear(words, i, next) ||
      isGradeAlone(words, parts, i, value, next) ||
      isGradeNumber(words, next) ||
      hasAgeBefore(words, parts, i, lexicon)
    )
      return true;
  }
  return false;
}

/** False for most words of a text. */
function mayBeginAge(word: string, { ageBegins }: Lexicon): boolean {
  const code = word.charCodeAt(0);
  return (
    (code >= 0x30 && code <= 0x39) || ageBegins.has(word) || BORN.has(word) || (code >= 0x3007 && HAN_NUMBER.test(word))
  );
}

/** The same for scripts without blanks. */
export function findsMinorAgeUnspaced(folded: string): boolean {
  for (const [, number = ''] of folded.matchAll(CJK_AGE)) if (readNumber(number) < ADULT) return true;
  return (
    THAI_OR_HAN_RANGE.test(folded) ||
    KOREAN_AGE.test(folded.replace(KOREAN_TENS, ' ')) ||
    /열(?:한|두|세|네|다섯|여섯|일곱)? ?살/u.test(folded)
  );
}

function readNumber(number: string): number {
  if (/^[0-9]/.test(number)) return Number(number);
  const [tens = '', ones] = number.split('十');
  if (ones === undefined) return Number([...number].map((digit) => HAN_DIGITS.indexOf(digit)).join(''));
  const digit = (text: string, empty: number) => (text === '' ? empty : HAN_DIGITS.indexOf(text.at(-1) ?? ''));
  return digit(tens, 1) * 10 + digit(ones, 0);
}

function numberAt(
  words: readonly string[],
  i: number,
  { numbers, numberStarts }: Lexicon,
): { value: number; next: number } | undefined {
  const word = words[i] ?? '';
  if (/^[0-9]+$/.test(word)) return /^0*[0-9]{1,3}$/.test(word) ? { value: Number(word), next: i + 1 } : undefined;
  if (HAN_NUMBER.test(word)) return { value: readNumber(word), next: i + 1 };
  if (!numberStarts.has(word) && !numbers.has(`${word}${words[i + 1] ?? ''}`)) return undefined;
  for (let length = MAX_NUMBER_WORDS; length > 0; length -= 1) {
    const value = numbers.get(words.slice(i, i + length).join(' ')) ?? numbers.get(words.slice(i, i + length).join(''));
    if (value !== undefined && i + length <= words.length) return { value, next: i + length };
  }
  return undefined;
}

/** "twenty" before "five", "hundred" behind it; single digits apart are one number. */
function isPartOfLarger(words: readonly string[], i: number, { tens, numbers }: Lexicon): boolean {
  const before = words[i - 1] ?? '';
  if (/^[a-z]/.test(words[i] ?? '') || !/^[0-9]/.test(words[i] ?? '')) {
    const word = words[i] ?? '';
    // Turkish and Arabic put eighteen and nineteen together from ten and the ones.
    if (before === 'on' && (word === 'sekiz' || word === 'dokuz')) return true;
    if (word.startsWith('عشر') && (numbers.get(before) ?? 0) >= 8 && (numbers.get(before) ?? 0) < 10) return true;
    if (!tens.has(before)) return false;
    // "and", "y" and their like make a number larger only behind another number: "treinta y cinco".
    return (
      before.length > 3 ||
      before === 'dix' ||
      tens.has(words[i - 2] ?? '') ||
      isLargeNumber(words[i - 2] ?? '') ||
      numbers.has(words[i - 2] ?? '')
    );
  }
  return /^[2-9]$/.test(before) && /^[0-9]$/.test(words[i] ?? '');
}

function isLargeNumber(word: string): boolean {
  return /^(?:trenta|treinta|vinte|veinti|quarenta|cuarenta|cinquenta|cincuenta|sessenta|sesenta|trinta|setenta|oitenta|ochenta|noventa)$/.test(
    word,
  );
}

function hasUnit(words: readonly string[], parts: Stream, from: number, { years, yearStems }: Lexicon): boolean {
  const ends = (place: number) => parts[place]?.hard !== false;
  // "14f", "12/f", "12-ish"
  if (words[from] === 'f' || words[from] === 'ish') return true;
  if (words[from] === 'y' && (OLD.has(words[from + 1] ?? '') || ends(from + 1))) return true;
  let at = from;
  while (at < from + 4 && BETWEEN.has(words[at] ?? '') && !isYear(words[at] ?? '', years, yearStems)) at += 1;
  // "16 to 25 years old" begins at 16.
  if (/^[0-9]{1,2}$/.test(words[at] ?? '') && at <= from + 1 && parts[at]?.hard === false) at += 1;
  const word = words[at] ?? '';
  const next = words[at + 1] ?? '';
  if (isYear(word, years, yearStems)) {
    const behind = at + (OLD.has(next) ? 2 : 1);
    return ends(behind) || !(NO_AGE.has(next) || AGED_THINGS.test(words[behind] ?? ''));
  }
  return UNITS_OF_A_YEAR.has(word) && (OLD.has(next) || next === 'of');
}

function isYear(word: string, years: ReadonlySet<string>, stems: readonly string[]): boolean {
  return years.has(word) || stems.some((stem) => word.startsWith(stem));
}

/** "whisky aged 12 years" */
function isAgedThing(words: readonly string[], i: number): boolean {
  return words[i - 1] === 'aged' && AGED_THINGS.test(words[i - 2] ?? '');
}

function hasAgeBefore(words: readonly string[], parts: Stream, i: number, { ages }: Lexicon): boolean {
  let at = i - 1;
  for (let k = 0; k < 3 && ABOUT.has(words[at] ?? ''); k += 1) at -= 1;
  const word = words[at] ?? '';
  const isAge = [words.slice(at, i), words.slice(i - 2, i)].some((before) => ages.has(before.join(' ')));
  if (ages.has(word) || isAge || TURNED.has(word)) return true;
  if (words[i - 1] === 'only' && parts[i + 1]?.hard !== false) return true;
  const isNumberAlone = parts[i + 1]?.hard !== false || !/^[a-z]/.test(words[i + 1] ?? '');
  return (
    at < i - 1 &&
    PRONOUNS.has(word) &&
    (words.slice(at + 1, i).includes('is') || words.slice(at + 1, i).includes('only')) &&
    (isNumberAlone || OLD.has(words[i + 1] ?? '') || (words[i + 1] ?? '') === 'and')
  );
}

function isUnder(words: readonly string[], i: number, { under, underStarts }: Lexicon): boolean {
  if (!underStarts.has(words[i] ?? '')) return false;
  for (const length of [1, 2]) {
    if (!under.has(words.slice(i, i + length).join(' '))) continue;
    let at = i + length;
    while (at < i + length + 3 && (words[at] === 'age' || words[at] === 'of' || words[at] === 'the')) at += 1;
    const word = words[at] ?? '';
    if (word === 'eighteen' || (/^[0-9]{1,2}$/.test(word) && Number(word) <= ADULT && Number(word) > 2)) {
      const next = words[at + 1] ?? '';
      // "under 10 umbrellas" counts things.
      if (
        word === 'eighteen' ||
        word === '18' ||
        next === '' ||
        OLD.has(next) ||
        next.startsWith('y') ||
        at > i + length
      )
        return true;
    }
  }
  return false;
}

function isGrade(words: readonly string[], i: number): boolean {
  return ORDINALS.has(words[i] ?? '') && GRADES.has(words[i + 1] ?? '');
}

function isGradeNumber(words: readonly string[], next: number): boolean {
  return ENDINGS.has(words[next] ?? '') && GRADES.has(words[next + 1] ?? '');
}

function isSchoolYear(words: readonly string[], i: number, next: number): boolean {
  return SCHOOL_YEARS.has(words[i - 1] ?? '') && PUPILS.test(words[next] ?? '');
}

/** "grade seven" as a phrase of its own, or "in grade 7": no "grade 5 titanium". */
function isGradeAlone(words: readonly string[], parts: Stream, i: number, value: number, next: number): boolean {
  if (words[i - 1] !== 'grade' || value > LAST_GRADE || parts[next]?.hard === false) return false;
  return parts[i - 1]?.hard !== false || BEFORE_GRADE.has(words[i - 2] ?? '');
}

/** "144 months old" */
function isUnderInUnits(words: readonly string[], value: number, next: number): boolean {
  const ofYear = UNITS_OF_A_YEAR.get(words[next] ?? '');
  return ofYear !== undefined && ofYear > 1 && value < ADULT * ofYear && OLD.has(words[next + 1] ?? '');
}

function isBornLate(words: readonly string[], i: number): boolean {
  if (!BORN.has(words[i] ?? '')) return false;
  const now = new Date().getFullYear();
  // "born in 2016", "geboren im Jahr 2016"
  return words.slice(i + 1, i + 4).some((word) => Number(word) > now - ADULT && Number(word) <= now);
}
