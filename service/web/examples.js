/** Sentences to begin with: they show something whatever the labels of the model are. */

/** @type {{name: string, word: string, text: string}[]} */
export const EXAMPLES = [
  {
    name: "Bank",
    word: "bank",
    text: [
      "I sat on the bank of the river and watched the water.",
      "I deposited the cheque at the bank in the city.",
      "After the storm the river burst its bank.",
      "My bank charged me twice, please refund me.",
    ].join("\n"),
  },
  {
    name: "Word order",
    word: "dog",
    text: ["The dog bit the man.", "The man bit the dog.", "The man was bitten by the dog."].join("\n"),
  },
  {
    name: "Negation",
    word: "works",
    text: [
      "It works, and I am happy with it.",
      "It never works, and I am not happy with it.",
      "Nothing works. How do I get my money back?",
    ].join("\n"),
  },
  {
    name: "Scripts and emoji",
    word: "café",
    text: [
      "The café was closed 😀👍🏽 again.",
      "Le café était très bon, merci beaucoup !",
      "我的卡在哪里？ Where is my card? 🙁",
    ].join("\n"),
  },
];
