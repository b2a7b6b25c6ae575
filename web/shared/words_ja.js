// The words of our own widgets in Japanese, by the English.

export default {
  Result: "結果",
  "Where the person is": "人物の位置",
  Place: "配置",
  "The wired mask says where the person is.": "つながっているマスクが人物の位置を決めます。",
  "{width} × {height}, from {x}, {y}. Drag to draw a box.":
    "{width} × {height}、始点 {x}, {y}。ドラッグで枠を描きます。",
  "{name} (mask)": "{name}（マスク）",
  "Best first": "似ている順",
  Likeness: "類似度",
  "no face": "顔なし",
  "{count} faces": "顔 {count} 個",
  "picture {number}": "画像 {number}",
  kept: "採用",
  Chart: "チャート",
  "Find faces": "顔を探す",
  Faces: "顔",
  "The node is bypassed or muted.": "このノードはバイパスまたはミュートされています。",
  "previous photo": "前の写真",
  "next photo": "次の写真",
  "photo {page} of {pages}": "写真 {page} / {pages}",
  "face {number}, score {score}": "顔 {number}、スコア {score}",
  "Face {number} is not there: {count} found. Click one.":
    "顔 {number} はありません（検出は {count} 個）。一つクリックしてください。",
  "face {number} of {count}, score {score}, {width} × {height} px":
    "顔 {number}（全 {count} 個）、スコア {score}、{width} × {height} px",
  "Saved people": "保存した人物",
  "Nobody is saved yet. Save Identity keeps a person here; a file from elsewhere can be dropped here.":
    "保存した人物はまだいません。「アイデンティティを保存」で人物がここに入ります。ほかのファイルをドロップすることもできます。",
  "1 reference, encoder {code}": "参照 1 枚、エンコーダー {code}",
  "{count} references, encoder {code}": "参照 {count} 枚、エンコーダー {code}",
  Rename: "名前を変更",
  Delete: "削除",
  "Add a file": "ファイルを追加",
  "Rename {name}": "{name} の名前を変更",
  "The new name": "新しい名前",
  "Delete {name}": "{name} を削除",
  "Delete the saved identity {name}? Its file is removed from the disk for good.":
    "保存したアイデンティティ {name} を削除しますか？ファイルはディスクから完全に消えます。",
  "Nothing arrives at {input}, which is needed. Connect something to it.":
    "必要な {input} に何も届いていません。接続してください。",
  "{input} is {value}, which is not there to choose. Choose another.":
    "{input} の {value} は選択肢にありません。別のものを選んでください。",
}
