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
  "Here as {name}.": "{name} として入っています。",
  "Stopping ...": "停止しています ...",
  "Stopped at {here}. Download goes on from there.": "{here} で停止しました。ダウンロードはそこから続きます。",
  "Asking for the file ...": "ファイルを要求しています ...",
  "Checking that it is the published file ...": "公開されたファイルか検査しています ...",
  "{here} of {total}": "{here} / {total}",
  "Folder: models/{folder}.": "フォルダー：models/{folder}",
  Page: "ページ",
  "I accept the licence: {licence}": "ライセンスに同意します：{licence}",
  "{name} (optional)": "{name}（任意）",
  Stop: "停止",
  Download: "ダウンロード",
  "Nothing is downloaded before you accept a licence and press Download. A download goes on when this page is closed.":
    "ライセンスに同意して「ダウンロード」を押すまで何もダウンロードしません。このページを閉じてもダウンロードは続きます。",
  "Only a person at the server's own machine can have it download. There, in the folder of ComfyUI-FaceCLIP:":
    "ダウンロードできるのはサーバーのマシンの前にいる人だけです。そこで、ComfyUI-FaceCLIPのフォルダーで実行してください：",
  Close: "閉じる",
  "Get the files": "ファイルを入手",
  "FaceCLIP's files are missing: {names}.": "FaceCLIPのファイルがありません：{names}",
  "Opened with the small model, which draws cartoon people: the published files are not here.":
    "小型モデルで開きました。描くのは漫画風の人物です：公開ファイルがここにありません。",
  "Try without weights": "重みなしで試す",
  "No face was found in the picture ({width} x {height} px).": "画像に顔が見つかりません（{width} x {height} px）。",
  "No face was found in picture {number} of {count} ({width} x {height} px).":
    "{count} 枚中 {number} 枚目の画像（{width} x {height} px）に顔が見つかりません。",
  "Face index {index} is past the last": "顔の番号 {index} は最後の顔を超えています。",
  "The values of the picture run from {low} to {high}; 0 to 1 is wanted.":
    "画像の値が {low} から {high} です。0 から 1 が必要です。",
  "The identity {name} was read by another face encoder":
    "アイデンティティ {name} は別の顔エンコーダーで読み取られたものです。",
  "The two identities were read by different face encoders":
    "二つのアイデンティティは別々の顔エンコーダーで読み取られたものです。",
  "The YuNet face detector was not found.": "YuNetの顔検出器が見つかりません。",
  "The SFace face recogniser was not found.": "SFaceの顔認識モデルが見つかりません。",
  "The InsightFace pack {name} was not found.": "InsightFaceのパック {name} が見つかりません。",
  "{name} is not among the host's {folder} models.": "{folder} のモデルに {name} がありません。",
  "{name} is not a FaceCLIP encoder, nor a FaceT5 one.":
    "{name} はFaceCLIPのエンコーダーでもFaceT5のエンコーダーでもありません。",
  "No {what} arrives at the input {input}.": "入力 {input} に何も届いていません（必要なもの：{what}）。",
  "Nothing arrives at the input {input}.": "入力 {input} に何も届いていません。",
  "What arrives at {input} is a {type} and no {what}.": "入力 {input} に届いたのは {type} です（必要なもの：{what}）。",
  "The {name} is {value} px, wanted a multiple of {step}:": "{name} が {value} px です。{step} の倍数が必要です。",
  "The diffusion model reads tokens that are {wanted} wide, and these are {seen}.":
    "拡散モデルとプロンプトの系統が違います：モデルが読むトークンの幅は {wanted}、届いたものは {seen} です。",
  "The noise levels begin at {first}, and FLUX's largest is {largest}.":
    "ノイズレベルが {first} から始まり、FLUXの最大は {largest} です：これはSDXLのサンプリング設定です。",
  "The noise levels begin at 1, which on an empty latent gives noise:":
    "ノイズレベルが 1 から始まり、空の潜在画像ではノイズになります：これはFLUXのサンプリング設定です。",
}
