/** Short everyday words of English: pieces that are all among them are no split word ("pen is" stays two words). */
export const COMMON: ReadonlySet<string> = new Set(
  (
    'a i am an and are as at be by do for go he her hers him his how if in is it its me my no nor not of off oh ok on once one or our out over own ' +
    'pen per she so some son sun ten than that the them then they this tie to too top two up us was we web well were what when who why will with ' +
    'you your add age ago aid air all any arm art ask bad bag bar bat bed bee big bit box bus but buy can cap car cat cow cry cup cut day did dog ' +
    'dry due ear eat egg end era eye far few fit fix fly fun gas get got gun had hat hot ice ill ink jar jet job joy key lab lay led leg let lie ' +
    'lip log lot low mad man map mat may men met mix mud net new nut oak odd oil old pad pan pay pet pie pig pin pot put ran rat raw red rid rob ' +
    'row run sad sat saw say sea see set sir sit six ski sky tap tax tea tip toe ton toy try use van war way wet win won yes yet ex id la le el de ' +
    'les los las un una en es di il da do os as der die das und'
  ).split(' '),
);

/** Words that stand beside others in joined words: "verylittlegirl", "nudephotoofa…". */
export const FILLERS: readonly string[] = (
  'the and of with in on at is very little young small tiny cute pretty old year years yo yr person people woman man female male body photo photos ' +
  'picture image pic art anime model hot real fully totally completely all two three wearing posing pose full asian my his her your no an one of to ' +
  'girlfriend student school cosplay beach bed bath shower portrait drawing style lora slider face concept character version artist'
).split(' ');
