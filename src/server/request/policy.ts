import { InferenceError } from '../../errors.js';

/*
 * The one rule that cannot be turned off: a prompt that sexualises minors is refused. It is a rule over words: a prompt that
 * speaks of minors and of sexual content is refused, whatever else it says. It errs towards refusing.
 */

/** Words for minors, in normalised form. */
const MINORS =
  /\b(child(ren|s|hood|like)?|kids?|kiddos?|minors?|under ?aged?|pre ?teens?|pre ?pubescents?|teens?|teen ?agers?|teenaged?|toddlers?|infants?|bab(y|ies)|newborns?|lolis?|lolitas?|shotas?|shotacon|lolicon|juveniles?|adolescents?|school ?(girls?|boys?|kids?|child(ren)?)|(elementary|primary|middle|high|grade) ?school(ers?)?|kindergart(en|ener|eners|ners?)|(little|young|small|tiny) (girls?|boys?|ones?|daughters?|sons?|sisters?|brothers?)|jail ?bait|daughters?|nieces?|nephews?)\b/;

/** "girl" and "boy" also mean adults, so they count only beside explicit words. */
const PERHAPS_MINORS = /\b(girls?|boys?)\b/;

const EXPLICIT =
  /\b(nud(e|es|ity|ist)|naked|sex|sexual(ly|i[sz]ed?)?|porn(o|ography|ographic)?|nsfw|erotic(a|ally)?|hentai|xxx|genitals?|genitalia|nipples?|topless|bottomless|undress(ed|ing)?|orgasms?|intercourse|masturbat\w*|explicit|fetish\w*|bdsm|incest\w*|aroused?|horny|rape[ds]?|raping|molest\w*|pedo\w*|paedo\w*|breasts?|boobs?|penis\w*|vagina\w*|lewd|ahegao|ecchi)\b/;

const SUGGESTIVE =
  /\b(sexy|sexi(er|est)|seductive(ly)?|seducing|sensual(ly)?|provocative(ly)?|lingerie|suggestive(ly)?|lustful(ly)?|lust|thongs?|stripping|striptease|strip ?tease|skimpy|scantily|see through|panties|panty|upskirt|cleavage)\b/;

/** Colours and things with "baby" or "kid" in their names. */
const HARMLESS =
  /\b(baby (blue|pink|doll dress|grand|shower)|kid (leather|gloves?)|minor (key|scale|chord|details?|changes?))\b/g;

const LEET: Readonly<Record<string, string>> = {
  0: 'o',
  1: 'i',
  3: 'e',
  4: 'a',
  5: 's',
  7: 't',
  '@': 'a',
  $: 's',
  '!': 'i',
};

/** Ages below eighteen, in digits and in words. */
const AGE_DIGITS = /\b(?:age[ds]? ?(?:of )?([1-9]|1[0-7])|([1-9]|1[0-7]) ?(?:(?:years?|yrs?) ?(?:olds?)?|y ?\/? ?o))\b/;
const AGE_WORDS =
  /\b(one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen) years? ?olds?\b/;

/**
 * @param text everything that conditions the image: prompt and weighted phrases
 * @param what subject of the error message
 * @throws InferenceError POLICY
 */
export function assertPolicy(text: string, what = 'the prompt'): void {
  if (!sexualisesMinors(text)) return;
  throw new InferenceError('POLICY', `${what} is refused: sexual content involving minors is never generated`);
}

export function sexualisesMinors(text: string): boolean {
  const plain = collapse(normalise(text));
  // Digits may be ages or disguised letters, and single letters may spell a word: every reading is checked.
  const readings = [text, text.replace(/[013457@$!]/g, (sign) => LEET[sign] ?? sign)]
    .map(normalise)
    .flatMap((reading) => [collapse(reading), joinLetters(collapse(reading)), collapse(joinLetters(reading))])
    .map((reading) => reading.replace(HARMLESS, ' '));
  const any = (pattern: RegExp) => readings.some((reading) => pattern.test(reading));
  const minor = any(MINORS) || AGE_DIGITS.test(plain) || AGE_WORDS.test(plain);
  return (minor && (any(EXPLICIT) || any(SUGGESTIVE))) || (any(PERHAPS_MINORS) && any(EXPLICIT));
}

/** Lower case, without diacritics and invisible characters; every other sign becomes a space. */
function normalise(text: string): string {
  return text
    .normalize('NFKD')
    .replace(/[\p{M}\p{Cf}]/gu, '')
    .toLowerCase()
    .replace(/[^\p{L}\p{N}/]/gu, ' ');
}

function collapse(text: string): string {
  return text.replace(/ +/g, ' ');
}

/** "n u d e" -> "nude": single letters with one space between them are one word. */
function joinLetters(text: string): string {
  return text.replace(/\b\p{L}(?: \p{L}\b)+/gu, (letters) => letters.replaceAll(' ', ''));
}
